metadata description = 'A storage account for blobs and queues, reached by identity only.'

@description('Required. Name of the account: 3 to 24 lower-case letters and digits.')
@minLength(3)
@maxLength(24)
param name string

@description('Required. Region.')
param location string

@description('Required. Tags.')
param tags object

@description('Required. Copies: in the zone, over zones, or in the paired region as well.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_RAGRS', 'Standard_RAGZRS'])
param redundancy string

@description('Required. Blob containers.')
param containers string[]

@description('Optional. Queues.')
param queues string[] = []

@description('Optional. Days in which a deleted blob can be brought back; 0: gone at once.')
param softDeleteDays int = 0

@description('Required. Whether only private endpoints reach it.')
param isPrivate bool

@description('Required. Principal of the app.')
param principalId string

@description('Optional. The Functions host takes leases on blobs and owns them; the app itself only reads and writes.')
param hostsFunctions bool = false

@description('Optional. Whether a lock keeps it from being deleted.')
param deleteLock bool = false

@description('Required. Workspace that diagnostics go to.')
param workspaceId string

var blobOwner = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
)
var blobContributor = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
)
var queueContributor = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
)

resource account 'Microsoft.Storage/storageAccounts@2025-08-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: redundancy }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: { bypass: 'AzureServices', defaultAction: isPrivate ? 'Deny' : 'Allow' }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-08-01' = {
  parent: account
  name: 'default'
  properties: {
    deleteRetentionPolicy: softDeleteDays > 0 ? { enabled: true, days: softDeleteDays } : { enabled: false }
    containerDeleteRetentionPolicy: softDeleteDays > 0 ? { enabled: true, days: softDeleteDays } : { enabled: false }
  }
}

resource blobContainers 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-08-01' = [
  for container in containers: {
    parent: blobs
    name: container
    properties: { publicAccess: 'None' }
  }
]

resource queueService 'Microsoft.Storage/storageAccounts/queueServices@2025-08-01' = if (!empty(queues)) {
  parent: account
  name: 'default'
}

resource workQueues 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-08-01' = [
  for queue in queues: {
    parent: queueService
    name: queue
  }
]

resource ownBlobs 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (hostsFunctions) {
  scope: account
  name: guid(account.id, principalId, blobOwner)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: blobOwner
  }
}

resource useQueues 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(queues)) {
  scope: account
  name: guid(account.id, principalId, queueContributor)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: queueContributor
  }
}

resource useBlobs 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for (container, i) in (hostsFunctions ? [] : containers): {
    scope: blobContainers[i]
    name: guid(account.id, container, principalId, blobContributor)
    properties: {
      principalId: principalId
      principalType: 'ServicePrincipal'
      roleDefinitionId: blobContributor
    }
  }
]

resource lock 'Microsoft.Authorization/locks@2020-05-01' = if (deleteLock) {
  scope: account
  name: 'keep'
  properties: { level: 'CanNotDelete', notes: 'Holds what users stored.' }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: blobs
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    // Reads and writes of the host would be most of the log and say nothing; deletions are the evidence of an erase.
    logs: [{ category: 'StorageDelete', enabled: true }]
    metrics: [{ category: 'Transaction', enabled: true }]
  }
}

output id string = account.id
output name string = account.name
output blobEndpoint string = account.properties.primaryEndpoints.blob
output queueEndpoint string = account.properties.primaryEndpoints.queue
