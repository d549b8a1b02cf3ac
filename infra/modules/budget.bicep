metadata description = 'What a month may cost, and who hears of it. It warns; it stops nothing.'

targetScope = 'subscription'

@description('Required. Name of the budget.')
param name string

@description('Required. In the currency of the subscription.')
@minValue(1)
param monthly int

@description('Required. First day of the first month, yyyy-MM-01.')
param start string

@description('Required. Resource groups that count.')
param groups string[]

@description('Required. Where the mails go.')
param emails string[]

@description('Required. Who else hears of it.')
param actionGroupId string

resource budget 'Microsoft.Consumption/budgets@2024-08-01' = {
  name: name
  properties: {
    category: 'Cost'
    amount: monthly
    timeGrain: 'Monthly'
    timePeriod: { startDate: start }
    filter: { dimensions: { name: 'ResourceGroupName', operator: 'In', values: groups } }
    notifications: {
      half: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 50
        thresholdType: 'Actual'
        contactEmails: emails
        contactGroups: [actionGroupId]
      }
      nearly: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 90
        thresholdType: 'Actual'
        contactEmails: emails
        contactGroups: [actionGroupId]
      }
      forecast: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 100
        thresholdType: 'Forecasted'
        contactEmails: emails
        contactGroups: [actionGroupId]
      }
    }
  }
}
