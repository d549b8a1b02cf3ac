metadata description = 'What wakes somebody up. What each alert means and what to do: docs/operate.md, under the same name.'

@description('Required. Region.')
param location string

@description('Required. Ending of the names.')
param token string

@description('Required. Tags.')
param tags object

@description('Required. Where the mails go.')
@minLength(1)
param emails string[]

@description('Required. Workspace that is asked.')
param workspaceId string

@description('Required. Cosmos DB account.')
param cosmosId string

@description('Required. Whether it is serverless, which has no throughput to be near the end of.')
param cosmosIsServerless bool

@description('Required. Azure OpenAI accounts.')
param openaiIds string[]

@description('Required. Storage accounts that hold queues.')
param queueAccountIds string[]

var queries = [
  {
    name: 'failed-requests'
    title: 'Requests fail'
    severity: 1
    every: 'PT5M'
    over: 'PT15M'
    query: loadTextContent('../queries/failed-requests.kql')
  }
  {
    name: 'first-token'
    title: 'First tokens are slow'
    severity: 2
    every: 'PT15M'
    over: 'PT15M'
    query: loadTextContent('../queries/first-token.kql')
  }
  {
    name: 'queue-age'
    title: 'Background work waits'
    severity: 2
    every: 'PT15M'
    over: 'PT15M'
    query: loadTextContent('../queries/queue-age.kql')
  }
  {
    name: 'expired-leases'
    title: 'Hosts die under their turns'
    severity: 2
    every: 'PT15M'
    over: 'PT30M'
    query: loadTextContent('../queries/expired-leases.kql')
  }
]

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'ag-${token}'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'companion'
    emailReceivers: [
      for (email, i) in emails: {
        name: 'mail-${i}'
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource logAlerts 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for item in queries: {
    name: '${item.name}-${token}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: item.title
      description: 'docs/operate.md, ${item.name}'
      severity: item.severity
      enabled: true
      scopes: [workspaceId]
      evaluationFrequency: item.every
      windowSize: item.over
      autoMitigate: true
      // A new workspace has no tables yet.
      skipQueryValidation: true
      criteria: {
        allOf: [
          {
            query: item.query
            timeAggregation: 'Count'
            operator: 'GreaterThan'
            threshold: 0
            failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
          }
        ]
      }
      actions: { actionGroups: [people.id] }
    }
  }
]

resource modelThrottled 'Microsoft.Insights/metricAlerts@2018-03-01' = [
  for (openaiId, i) in openaiIds: {
    name: 'model-429-${i}-${token}'
    location: 'global'
    tags: tags
    properties: {
      description: 'docs/operate.md, model-429'
      severity: 2
      enabled: true
      scopes: [openaiId]
      evaluationFrequency: 'PT5M'
      windowSize: 'PT15M'
      autoMitigate: true
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            criterionType: 'StaticThresholdCriterion'
            name: 'throttled'
            metricNamespace: 'Microsoft.CognitiveServices/accounts'
            metricName: 'AzureOpenAIRequests'
            dimensions: [{ name: 'StatusCode', operator: 'Include', values: ['429'] }]
            timeAggregation: 'Total'
            operator: 'GreaterThan'
            threshold: 20
            skipMetricValidation: true
          }
        ]
      }
      actions: [{ actionGroupId: people.id }]
    }
  }
]

resource storeThrottled 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: 'cosmos-429-${token}'
  location: 'global'
  tags: tags
  properties: {
    description: 'docs/operate.md, cosmos-429'
    severity: 2
    enabled: true
    scopes: [cosmosId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'throttled'
          metricNamespace: 'Microsoft.DocumentDB/databaseAccounts'
          metricName: 'TotalRequests'
          dimensions: [{ name: 'StatusCode', operator: 'Include', values: ['429'] }]
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 100
        }
      ]
    }
    actions: [{ actionGroupId: people.id }]
  }
}

resource storeNearItsLimit 'Microsoft.Insights/metricAlerts@2018-03-01' = if (!cosmosIsServerless) {
  name: 'cosmos-ru-${token}'
  location: 'global'
  tags: tags
  properties: {
    description: 'docs/operate.md, cosmos-ru'
    severity: 3
    enabled: true
    scopes: [cosmosId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'normalized'
          metricNamespace: 'Microsoft.DocumentDB/databaseAccounts'
          metricName: 'NormalizedRUConsumption'
          timeAggregation: 'Maximum'
          operator: 'GreaterThan'
          threshold: 90
        }
      ]
    }
    actions: [{ actionGroupId: people.id }]
  }
}

resource queueStuck 'Microsoft.Insights/metricAlerts@2018-03-01' = [
  for (queueAccountId, i) in queueAccountIds: {
    name: 'queue-length-${i}-${token}'
    location: 'global'
    tags: tags
    properties: {
      description: 'docs/operate.md, queue-length'
      severity: 2
      enabled: true
      scopes: ['${queueAccountId}/queueServices/default']
      evaluationFrequency: 'PT1H'
      windowSize: 'PT1H'
      autoMitigate: true
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            criterionType: 'StaticThresholdCriterion'
            name: 'waiting'
            metricNamespace: 'Microsoft.Storage/storageAccounts/queueServices'
            metricName: 'QueueMessageCount'
            timeAggregation: 'Average'
            operator: 'GreaterThan'
            threshold: 100
          }
        ]
      }
      actions: [{ actionGroupId: people.id }]
    }
  }
]

output actionGroupId string = people.id
