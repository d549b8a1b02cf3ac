metadata description = 'Cosmos DB: the account, its database and containers, and who may use them.'
// What the containers are: ../containers.json, which a test holds against what the code sets up in emulators.

import { database } from '../types.bicep'

@description('Required. Name of the account.')
param name string

@description('Required. Name of the database.')
param databaseName string

@description('Required. Regions; the first one writes.')
param regions string[]

@description('Required. Tags.')
param tags object

@description('Required. How it is paid for and backed up.')
param plan database

@description('Required. Whether each region spreads over zones.')
param zoneRedundant bool

@description('Required. Whether only private endpoints reach it.')
param isPrivate bool

@description('Required. Principal of the app.')
param principalId string

@description('Optional. A developer who may use the data as the app may; empty: nobody.')
param developerId string = ''

@description('Required. Whether a lock keeps it from being deleted.')
param deleteLock bool

@description('Required. Workspace that diagnostics go to.')
param workspaceId string

var definitions = loadJsonContent('../containers.json')
// Serverless accounts have one region.
var serverless = plan.capacity == 'serverless' && length(regions) == 1
var everywhere = [{ name: 'EnableNoSQLVectorSearch' }, { name: 'EnableNoSQLFullTextSearch' }]
var principals = concat([principalId], empty(developerId) ? [] : [developerId])
var grants = flatten(map(principals, who => map(definitions, it => { principal: who, container: it.id })))

resource account 'Microsoft.DocumentDB/databaseAccounts@2026-03-15' = {
  name: name
  location: regions[0]
  tags: tags
  kind: 'GlobalDocumentDB'
  properties: {
    databaseAccountOfferType: 'Standard'
    capabilities: serverless ? concat(everywhere, [{ name: 'EnableServerless' }]) : everywhere
    consistencyPolicy: { defaultConsistencyLevel: 'Session' }
    locations: [
      for (region, i) in regions: {
        locationName: region
        failoverPriority: i
        isZoneRedundant: zoneRedundant
      }
    ]
    enableAutomaticFailover: length(regions) > 1
    // One region writes: taking over a turn rests on conditional writes that all hosts see.
    enableMultipleWriteLocations: false
    disableLocalAuth: true
    disableKeyBasedMetadataWriteAccess: true
    minimalTlsVersion: 'Tls12'
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    backupPolicy: { type: 'Continuous', continuousModeProperties: { tier: plan.backup } }
  }
}

resource db 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2026-03-15' = {
  parent: account
  name: databaseName
  properties: { resource: { id: databaseName } }
}

// One at a time: the account refuses metadata work in parallel.
@batchSize(1)
resource containers 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2026-03-15' = [
  for definition in definitions: {
    parent: db
    name: definition.id
    properties: {
      resource: definition
      options: serverless ? {} : { autoscaleSettings: { maxThroughput: plan.maxRu } }
    }
  }
]

resource metadataReader 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2026-03-15' = {
  parent: account
  name: guid(account.id, 'metadata reader')
  properties: {
    roleName: 'Companion metadata reader'
    type: 'CustomRole'
    assignableScopes: [account.id]
    // What a client asks when it connects: which regions there are. No data.
    permissions: [{ dataActions: ['Microsoft.DocumentDB/databaseAccounts/readMetadata'] }]
  }
}

@batchSize(1)
resource readMetadata 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2026-03-15' = [
  for principal in principals: {
    parent: account
    name: guid(account.id, principal, 'metadata reader')
    properties: {
      principalId: principal
      roleDefinitionId: metadataReader.id
      scope: account.id
    }
  }
]

@batchSize(1)
resource useContainers 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2026-03-15' = [
  for grant in grants: {
    parent: account
    name: guid(account.id, grant.container, grant.principal, 'data contributor')
    properties: {
      principalId: grant.principal
      roleDefinitionId: '${account.id}/sqlRoleDefinitions/00000000-0000-0000-0000-000000000002'
      scope: '${account.id}/dbs/${db.name}/colls/${grant.container}'
    }
    dependsOn: [containers]
  }
]

resource lock 'Microsoft.Authorization/locks@2020-05-01' = if (deleteLock) {
  scope: account
  name: 'keep'
  properties: { level: 'CanNotDelete', notes: 'Holds what users stored.' }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: account
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated'
    // Not the requests themselves: one line each would cost more than the requests, and could name an owner.
    logs: [{ category: 'ControlPlaneRequests', enabled: true }]
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

output id string = account.id
output endpoint string = account.properties.documentEndpoint
output database string = db.name
output isServerless bool = serverless
